"""The only code that speaks to Mautic: auth, transport, contacts, feeds, writes and provisioning.

It promises what `docs/mautic.md` says and no more: pages in id order, results per contact, errors by what to do next.
It keeps nothing between calls but the connection and its token.
"""
