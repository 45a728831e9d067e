"""Procedures that learn tasks one after another."""
