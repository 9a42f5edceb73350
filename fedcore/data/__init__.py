"""Data sets, their split into sites, their checks, and what a site tells of its rows."""
