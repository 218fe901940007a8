#!/bin/sh
# --- repository: the portal fills in these lines ---
# --- end of the repository ---
