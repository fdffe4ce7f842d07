"""RainFocus engine: an always-on streaming connector for RainFocus attendee profiles."""
