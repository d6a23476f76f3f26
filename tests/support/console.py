"""A browser without JavaScript: it keeps cookies and sends the hidden fields of a page's forms."""

import re
from html import unescape
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

_CSRF = re.compile(r'name="csrf" value="([^"]+)"')
_FORM = re.compile(r'<form[^>]* action="(?P<action>[^"]*)".*?</form>', re.DOTALL)
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


class Browser:
    """One person's browser."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.page: TestResponse

    def open(self, path: str, **options: Any) -> str:
        """Open a page, and follow where it leads; its text."""
        self.page = self.client.get(path, follow_redirects=True, **options)
        return self.page.text

    def sign_in(self, token: str) -> str:
        """Sign in with a token of the API; the text of the page after it."""
        self.open("/sign-in")
        return self.send("/sign-in", token=token)

    def send(self, path: str, **fields: str) -> str:
        """Send fields with what protects the page's forms; the text of the page after it."""
        csrf = _CSRF.search(self.page.text)
        data = {"csrf": csrf[1] if csrf else "", **fields}
        self.page = self.client.post(path, data=data, follow_redirects=True)
        return self.page.text

    def submit(self, action: str, **fields: str) -> str:
        """Fill in and send the page's form with this action, with its hidden fields; the text of the page after it."""
        forms = [form for form in _FORM.finditer(self.page.text) if unescape(form["action"]) == action]
        assert forms, f"the page has no form to {action}"
        hidden = {name: unescape(value) for name, value in _HIDDEN.findall(forms[0][0])}
        return self.send(action, **{**hidden, **fields})
