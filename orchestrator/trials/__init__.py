"""The vocabulary of the package: a trial, its id, its states, its events, its resources."""
