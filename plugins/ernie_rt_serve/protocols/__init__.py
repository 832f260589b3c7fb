"""What each protocol calls things: bodies to tasks, and answers to bodies and events."""
