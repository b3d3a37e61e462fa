"""One way through: pull → resolve → ask → validate → decide → push. Each step reads the store and writes the store."""
