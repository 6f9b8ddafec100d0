"""Contract checks for plugins: plain functions, the toys they are tried on, and a pytest plugin that runs them."""
