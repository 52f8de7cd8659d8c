/*-------------------------------------------------------------------------
 *
 * ddl.h
 *	  Making way for commands that our processes would block.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DDL_H
#define DDL_H

extern void ddl_register(void);

#endif							/* DDL_H */
