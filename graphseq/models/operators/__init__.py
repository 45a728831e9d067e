"""Operators between fields on a grid."""
