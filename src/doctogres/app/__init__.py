"""A web page for users who do not want to write JSON: upload a slide and its mask, see the served model's answer.

It calls the endpoint as `doctogres.client` does, and does not load a model. Needs Streamlit (`requirements-app.txt`).
"""
