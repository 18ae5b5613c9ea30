"""A web page for people who will not write JSON: a slide and its mask in, the served model's answer out.

It asks the endpoint as `doctogres.client` does, and loads no model. Needs Streamlit (`requirements-app.txt`).
"""
