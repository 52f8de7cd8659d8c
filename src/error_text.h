/*-------------------------------------------------------------------------
 *
 * error_text.h
 *	  What somebody else said went wrong, made fit to be kept and logged.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_ERROR_TEXT_H
#define DISPATCH_ERROR_TEXT_H

/* Longer ones are cut. */
#define ERROR_TEXT_LEN 512

/* Copies a text into a buffer, as valid, printable text of the database. */
extern void error_text_copy(char *target, Size size, const char *text);

#endif							/* DISPATCH_ERROR_TEXT_H */
