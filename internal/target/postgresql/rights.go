package postgresql

// rights lists the rights of the login, not of the role that it acts as, on everything in a
// database, and its settings. It leaves out the rights that every role has on the server's own
// objects.
const rights = `
SELECT 'relation ' || c.oid::regclass::text,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(CASE WHEN c.relkind = 'S'
				THEN ARRAY['USAGE', 'SELECT', 'UPDATE']
				ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'] END) p
			WHERE CASE WHEN c.relkind = 'S'
				THEN has_sequence_privilege(session_user, c.oid, p)
				ELSE has_table_privilege(session_user, c.oid, p) END)
		|| CASE WHEN c.relkind = 'S' THEN '{}' ELSE ARRAY(
			SELECT p || '?' FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p
			WHERE has_any_column_privilege(session_user, c.oid, p)) END
		|| ARRAY(SELECT 'owner' WHERE pg_has_role(session_user, c.relowner, 'USAGE')))
	FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relnamespace <> 'pg_catalog'::regnamespace
UNION ALL SELECT 'column ' || a.attrelid::regclass::text || '.' || a.attname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p
			WHERE has_column_privilege(session_user, a.attrelid, a.attnum, p)))
	FROM pg_attribute a WHERE a.attacl IS NOT NULL
UNION ALL SELECT 'schema ' || n.nspname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(ARRAY['USAGE', 'CREATE']) p WHERE has_schema_privilege(session_user, n.oid, p))
		|| ARRAY(SELECT 'owner' WHERE pg_has_role(session_user, n.nspowner, 'USAGE')))
	FROM pg_namespace n WHERE n.nspname !~ '^pg_(toast_)?temp_'
UNION ALL SELECT 'function ' || f.oid::regprocedure::text,
		has_function_privilege(session_user, f.oid, 'EXECUTE')::text
			|| pg_has_role(session_user, f.proowner, 'USAGE')::text
	FROM pg_proc f WHERE f.pronamespace <> 'pg_catalog'::regnamespace OR f.proacl IS NOT NULL
UNION ALL SELECT 'type ' || y.oid::regtype::text,
		has_type_privilege(session_user, y.oid, 'USAGE')::text
	FROM pg_type y WHERE y.typnamespace <> 'pg_catalog'::regnamespace AND y.typtype IN ('d', 'e', 'r', 'c')
UNION ALL SELECT 'language ' || l.lanname,
		has_language_privilege(session_user, l.oid, 'USAGE')::text
	FROM pg_language l
UNION ALL SELECT 'foreign server ' || v.srvname,
		has_server_privilege(session_user, v.oid, 'USAGE')::text
	FROM pg_foreign_server v
UNION ALL SELECT 'foreign data wrapper ' || w.fdwname,
		has_foreign_data_wrapper_privilege(session_user, w.oid, 'USAGE')::text
	FROM pg_foreign_data_wrapper w
UNION ALL SELECT 'tablespace ' || s.spcname,
		has_tablespace_privilege(session_user, s.oid, 'CREATE')::text
	FROM pg_tablespace s
UNION ALL SELECT 'database ' || d.datname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(ARRAY['CONNECT', 'CREATE', 'TEMPORARY']) p
			WHERE has_database_privilege(session_user, d.oid, p)))
	FROM pg_database d
UNION ALL SELECT 'member of ' || r.rolname,
		pg_has_role(session_user, r.oid, 'USAGE')::text
	FROM pg_roles r WHERE NOT r.rolcanlogin
UNION ALL SELECT 'setting ' || COALESCE(d.datname || ' ', '') || c, 'set'
	FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
	WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = session_user)
UNION ALL SELECT 'attribute', concat_ws(',', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls,
		r.rolreplication, r.rolconnlimit)
	FROM pg_roles r WHERE r.rolname = session_user`
