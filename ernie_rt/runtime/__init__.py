"""The one engine: requests become sequences, the scheduler composes steps of them, the engine runs those."""
