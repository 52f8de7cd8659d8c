/*-------------------------------------------------------------------------
 *
 * data_path.h
 *	  Dot paths into the data of an event: 'user.address.country'.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_DATA_PATH_H
#define DISPATCH_DATA_PATH_H

#include "utils/jsonb.h"

/* Is there a name before, between and after all dots? */
extern bool data_path_is_valid(const char *path, size_t len);

/*
 * Finds the field that a path names: a scalar other than null.  False, with
 * *problem set to what is wrong, in the form '"user" in the data is missing'.
 */
extern bool data_path_find(const char *path, size_t len, Jsonb *data, JsonbValue *field,
						   const char **problem);

#endif							/* DISPATCH_DATA_PATH_H */
