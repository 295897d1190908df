"""Networks that a search is compared with: small ones from their papers, and any module by its import path.

`plan` says which (no torch in it); `networks` lists what is built in; `loading` builds one and tries it.
"""
