"""The kinds of dictionary that the package brings, one file each; the controls share one."""
