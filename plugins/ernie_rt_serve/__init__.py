"""An HTTP server for a model: OpenAI's protocols and Anthropic's, and a page for the browser."""
