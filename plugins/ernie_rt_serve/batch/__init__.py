"""Files of requests, answered without a server, in the format of OpenAI's batch API."""
