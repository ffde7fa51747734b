"""Ground floor: immutable artifacts named by the fingerprint of their recipe, journals, locks and the data root."""
