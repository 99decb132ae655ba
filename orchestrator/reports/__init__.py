"""From records to tables, curves, figures and exports."""
