-- The extension can be created, by a superuser, and says what it is.
CREATE EXTENSION dispatch;
\dx dispatch
