"""The Python API: what `import casl_bench` offers. Each name is imported once it is used."""
