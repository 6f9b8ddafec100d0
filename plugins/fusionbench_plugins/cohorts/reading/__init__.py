"""What several readers share and no plugin offers: tables as text, labels as classes, settings to propose."""
