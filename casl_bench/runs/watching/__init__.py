"""What is shown and counted while a run goes on."""
