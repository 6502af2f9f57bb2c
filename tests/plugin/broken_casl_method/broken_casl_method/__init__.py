raise RuntimeError("this package needs a library from the future")
