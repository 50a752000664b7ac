package main

func (r results) plot() string { return "" }
