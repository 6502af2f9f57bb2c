"""How the shipped models of rendered domains were trained. A guest: the core never imports it."""
