"""What is known of a run: its ledger, locks, states, and what a restart may take from them."""
