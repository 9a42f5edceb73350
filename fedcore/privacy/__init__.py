"""Facts about releases (events) apart from their interpretation (accountant) and their wording (statement)."""
