"""How a server does under load: any that speaks OpenAI's protocol."""
