"""Effects: a published claim, trained from a config, with its controls and the rule of its verdict."""
