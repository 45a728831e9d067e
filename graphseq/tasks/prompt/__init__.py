"""Procedures that adapt a frozen graph encoder by prompts."""
