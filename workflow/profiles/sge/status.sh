#!/bin/bash
# status.sh JOB: whether a job of SGE is running, or was a success, or failed, for Snakemake.
export LC_ALL=C  # the words below are SGE's English ones
job=$1
gone=.snakemake/sge_logs/$job.gone
if known=$(qstat -j "$job" 2>&1); then
    # One that could not be started waits for somebody to look at it, for ever.
    if grep -q '^error reason' <<< "$known"; then
        grep '^error reason' <<< "$known" >&2
        qdel "$job" > /dev/null
        echo failed
    else
        echo running
    fi
elif grep -q 'do not exist' <<< "$known"; then
    # The last record counts: a job that was started anew has several.
    read -r failed status < <(qacct -j "$job" 2> /dev/null |
        awk '$1 == "failed" { failed = $2 } $1 == "exit_status" { status = $2 } END { print failed, status }')
    if [ -n "$status" ]; then
        rm -f "$gone"
        if [ "$failed" = 0 ] && [ "$status" = 0 ]; then echo success; else echo failed; fi
    elif [ -e "$gone" ] && [ -n "$(find "$gone" -mmin +1)" ]; then
        rm -f "$gone"
        echo failed  # deleted before it began, of which SGE keeps no record
    else
        [ -e "$gone" ] || touch "$gone"
        echo running  # the record is yet to come
    fi
else
    echo running  # SGE does not answer
fi
