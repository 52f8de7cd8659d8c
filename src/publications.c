/*-------------------------------------------------------------------------
 *
 * publications.c
 *	  Publications that replicate our tables.
 *
 * FOR ALL TABLES is quickly said, and means the secrets of backends, too.  Only
 * what a publication was told is looked at, not each table of the database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"

#include "publications.h"
#include "settings.h"

void
publications_warn(void *arg)
{
	const char *names;

	SPI_connect();
	SPI_execute("SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.pubname), ', '"
				" ORDER BY p.pubname) FROM pg_catalog.pg_publication AS p WHERE p.puballtables"
				" OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace AS s"
				" WHERE s.pnpubid = p.oid AND s.pnnspid = 'dispatch'::pg_catalog.regnamespace)"
				" OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS r"
				" JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid WHERE r.prpubid = p.oid"
				" AND c.relnamespace = 'dispatch'::pg_catalog.regnamespace)", true, 1);
	names = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (names != NULL)
		worker_log(WARNING,
				   (errmsg("publications replicate tables of dispatch: %s", names),
					errdetail("Subscribers can get all events, and the passwords of backends."),
					errhint("Name what is to be published, and leave out the tables of schema "
							"\"dispatch\", above all dispatch.backend_secrets.")));
	SPI_finish();
}
