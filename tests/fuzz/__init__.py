"""Random hostile inputs for every reader of the project; CONTRIBUTING.md says how to run them and what to do then."""
