"""The gateway's routes, a module an audience; ``app.create_app`` installs them.

``inference`` asks the models, ``feedback`` says whether an answer was right, ``monitoring`` is for machines that watch; for operators
there are ``status``, ``annotation`` and ``artifacts``; ``site`` is the pages that people open. The role that a path asks for stands
in ``serving/access.py``: one that is not named there is the operator's.
"""
