"""A deployed function, or anything that speaks Lambda's Invoke API, measured by what Lambda itself reports."""
