"""Who may talk to whom: compiled to rules in pure code, put in force and proven against the live kernel."""
