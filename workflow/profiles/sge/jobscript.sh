#!/bin/bash
# properties = {properties}
# SGE warns every process of a job. `mg` heeds it; those around it wait for what it writes.
trap '' USR1 USR2
{exec_job}
