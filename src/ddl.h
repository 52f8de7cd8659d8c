/*-------------------------------------------------------------------------
 *
 * ddl.h
 *	  Making way for commands that our processes would block.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_DDL_H
#define DISPATCH_DDL_H

extern void ddl_register(void);

#endif							/* DISPATCH_DDL_H */
