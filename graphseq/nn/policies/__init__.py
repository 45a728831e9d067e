"""Policies that draw what a network sees."""
