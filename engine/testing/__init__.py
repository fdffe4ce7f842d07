"""Public fakes, the virtual clock, contract batteries and the pytest plugin."""
