"""Recipes: plain functions that return one complete record each; data only, no logic."""
