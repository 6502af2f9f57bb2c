"""How settings of methods were chosen: a sweep on validation images."""
