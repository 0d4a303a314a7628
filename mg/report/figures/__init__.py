"""Figures of a run, a module each: learning curves, panels of examples, saliency maps, cost.

Every function that draws one writes `prefix`.png and `prefix`.svg and returns the caption, which is
also stored in both files. Examples are the first of the test set, or spread evenly over it, never
chosen by their looks.
"""
