package postgresql

import "fmt"

// seen lists what an application sees and may do in a database: the role that it acts as, its
// rights and those that it may grant (*), what row security leaves it, its settings. It leaves out
// the rights of every role on the server's own objects. The placeholders are the privilege of a
// membership to act as a role, further privileges of a table, and what only later servers have.
const seen = `
SELECT 'acts as', current_user::text
UNION ALL SELECT 'relation ' || n.nspname || '.' || c.relname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(CASE WHEN c.relkind = 'S'
				THEN ARRAY['USAGE', 'SELECT', 'UPDATE']
				ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'%[2]s] END) q,
				unnest(ARRAY[q, q || ' WITH GRANT OPTION']) p
			WHERE CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, p) ELSE has_table_privilege(c.oid, p) END)
		|| CASE WHEN c.relkind = 'S' THEN '{}' ELSE ARRAY(
			SELECT p || '?' FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p
			WHERE has_any_column_privilege(c.oid, p)) END
		|| ARRAY(SELECT 'owner' WHERE pg_has_role(c.relowner, 'USAGE'))
		|| ARRAY(SELECT 'row security' WHERE row_security_active(c.oid))
		|| pg_get_userbyid(c.relowner)::text)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relnamespace <> 'pg_catalog'::regnamespace
		AND n.nspname !~ '^pg_(toast|temp)'
UNION ALL SELECT 'column ' || n.nspname || '.' || c.relname || '.' || a.attname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) q,
				unnest(ARRAY[q, q || ' WITH GRANT OPTION']) p
			WHERE has_column_privilege(a.attrelid, a.attnum, p)))
	FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE a.attacl IS NOT NULL
UNION ALL SELECT 'schema ' || n.nspname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(ARRAY['USAGE', 'CREATE']) q, unnest(ARRAY[q, q || ' WITH GRANT OPTION']) p
			WHERE has_schema_privilege(n.oid, p))
		|| ARRAY(SELECT 'owner' WHERE pg_has_role(n.nspowner, 'USAGE')))
	FROM pg_namespace n WHERE n.nspname !~ '^pg_(toast|temp)'
UNION ALL SELECT
		'function ' || n.nspname || '.' || f.proname || '(' || pg_get_function_identity_arguments(f.oid) || ')',
		concat_ws(',', has_function_privilege(f.oid, 'EXECUTE'),
			has_function_privilege(f.oid, 'EXECUTE WITH GRANT OPTION'), pg_has_role(f.proowner, 'USAGE'),
			f.prosecdef, f.proconfig, pg_get_userbyid(f.proowner))
	FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
	WHERE f.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) OR f.proacl IS NOT NULL
UNION ALL SELECT 'type ' || n.nspname || '.' || y.typname,
		concat_ws(',', has_type_privilege(y.oid, 'USAGE'), pg_has_role(y.typowner, 'USAGE'))
	FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace
	WHERE y.typnamespace <> 'pg_catalog'::regnamespace AND y.typtype IN ('d', 'e', 'r', 'c')
		AND n.nspname !~ '^pg_(toast|temp)'
UNION ALL SELECT 'language ' || l.lanname, has_language_privilege(l.oid, 'USAGE')::text
	FROM pg_language l
UNION ALL SELECT 'foreign server ' || v.srvname,
		concat_ws(',', has_server_privilege(v.oid, 'USAGE'), has_server_privilege(v.oid, 'USAGE WITH GRANT OPTION'),
			pg_has_role(v.srvowner, 'USAGE'))
	FROM pg_foreign_server v
UNION ALL SELECT 'user mapping of ' || m.srvname,
		CASE m.umuser WHEN 0 THEN 'public' ELSE 'own' END
	FROM pg_user_mappings m WHERE m.umuser IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
UNION ALL SELECT 'foreign data wrapper ' || w.fdwname, has_foreign_data_wrapper_privilege(w.oid, 'USAGE')::text
	FROM pg_foreign_data_wrapper w
UNION ALL SELECT 'publication ' || p.pubname,
		concat_ws(',', pg_has_role(p.pubowner, 'USAGE'), pg_get_userbyid(p.pubowner))
	FROM pg_publication p
UNION ALL SELECT 'subscription ' || s.subname,
		concat_ws(',', pg_has_role(s.subowner, 'USAGE'), pg_get_userbyid(s.subowner))
	FROM pg_subscription s WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL SELECT 'default privileges ' || d.defaclnamespace::regnamespace::text || ' ' || d.defaclobjtype::text,
		d.defaclacl::text
	FROM pg_default_acl d WHERE d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
UNION ALL SELECT 'policy ' || p.polrelid::regclass::text || ' ' || p.polname,
		(EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(r, 'USAGE')))::text
	FROM pg_policy p
UNION ALL SELECT 'tablespace ' || s.spcname,
		concat_ws(',', has_tablespace_privilege(s.oid, 'CREATE'), pg_has_role(s.spcowner, 'USAGE'))
	FROM pg_tablespace s
UNION ALL SELECT 'extension ' || e.extname,
		concat_ws(',', pg_has_role(e.extowner, 'USAGE'), pg_get_userbyid(e.extowner))
	FROM pg_extension e
UNION ALL SELECT 'event trigger ' || e.evtname,
		concat_ws(',', e.evtenabled, pg_has_role(e.evtowner, 'USAGE'))
	FROM pg_event_trigger e
UNION ALL SELECT 'large objects ' || CASE WHEN l.mine THEN 'of its own' ELSE l.may END, count(*)::text
	FROM (SELECT pg_has_role(m.lomowner, 'USAGE') AS mine, (SELECT 'with rights ' || string_agg(DISTINCT
				a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ',')
			FROM aclexplode(m.lomacl) a
			WHERE CASE a.grantee WHEN 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END) AS may
		FROM pg_largeobject_metadata m) l
	WHERE l.mine OR l.may IS NOT NULL GROUP BY 1
UNION ALL SELECT 'owns ' || pg_describe_object(s.classid, s.objid, s.objsubid), pg_get_userbyid(s.refobjid)::text
	FROM pg_shdepend s
	WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o' AND pg_has_role(s.refobjid, 'USAGE')
		AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND s.classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass,
			'pg_largeobject'::regclass, 'pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
UNION ALL SELECT 'database ' || d.datname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(ARRAY['CONNECT', 'CREATE', 'TEMPORARY']) q, unnest(ARRAY[q, q || ' WITH GRANT OPTION']) p
			WHERE has_database_privilege(d.oid, p))
		|| ARRAY(SELECT 'owner' WHERE pg_has_role(d.datdba, 'USAGE')))
	FROM pg_database d WHERE d.datname = current_database()
UNION ALL SELECT 'may become ' || r.rolname, 'yes'
	FROM pg_roles r
	WHERE pg_has_role(session_user, r.oid, '%[1]s') AND r.rolname NOT IN (session_user, current_user)
UNION ALL SELECT 'has the rights of ' || r.rolname, 'yes'
	FROM pg_roles r
	WHERE pg_has_role(current_user, r.oid, 'USAGE') AND r.rolname NOT IN (session_user, current_user)
UNION ALL SELECT 'setting ' || name, COALESCE(reset_val, '')
	FROM pg_settings WHERE context IN ('user', 'superuser') AND name <> 'application_name'
UNION ALL SELECT 'setting of the login ' || COALESCE(d.datname || ' ', '') || c, 'set'
	FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
	WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = session_user)
		AND NOT (s.setdatabase = 0 AND c LIKE 'role=%%')
UNION ALL SELECT 'attributes', concat_ws(',', r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls)
	FROM pg_roles r WHERE r.rolname = current_user
UNION ALL SELECT 'attributes of the login alone',
		concat_ws(',', CASE WHEN l.rolsuper > r.rolsuper THEN 'SUPERUSER' END,
			CASE WHEN l.rolcreaterole > r.rolcreaterole THEN 'CREATEROLE' END,
			CASE WHEN l.rolcreatedb > r.rolcreatedb THEN 'CREATEDB' END,
			CASE WHEN l.rolbypassrls > r.rolbypassrls THEN 'BYPASSRLS' END)
	FROM pg_roles r, pg_roles l WHERE r.rolname = current_user AND l.rolname = session_user
UNION ALL SELECT 'security label of the login by ' || b.provider, b.label
	FROM pg_shseclabel b WHERE b.classoid = 'pg_authid'::regclass
		AND b.objoid = (SELECT oid FROM pg_roles WHERE rolname = session_user)
UNION ALL SELECT 'attributes of the login', concat_ws(',', r.rolreplication, r.rolconnlimit, r.rolvaliduntil)
	FROM pg_roles r WHERE r.rolname = session_user
UNION ALL SELECT
		'belongs to the login alone: ' || s.classid::regclass::text || ' in database ' || COALESCE(d.datname, 'all'), 'yes'
	FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
	WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('o', 'a') AND session_user <> current_user
		AND s.classid <> 'pg_auth_members'::regclass
		AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = session_user)
	GROUP BY s.classid, d.datname%[3]s`

// seenParameters lists the parameters of the server on which a login has a privilege (since
// PostgreSQL 15).
const seenParameters = `
UNION ALL SELECT 'parameter ' || a.parname,
		concat_ws(',', VARIADIC ARRAY(
			SELECT p FROM unnest(ARRAY['SET', 'ALTER SYSTEM']) q, unnest(ARRAY[q, q || ' WITH GRANT OPTION']) p
			WHERE has_parameter_privilege(a.parname, p)))
	FROM pg_parameter_acl a`

// seenAt returns the query seen for a version of the server.
func seenAt(release int) string {
	become, privileges, more := "MEMBER", "", ""
	if release >= 150000 {
		more = seenParameters
	}
	if release >= 160000 {
		become = "SET"
	}
	if release >= 170000 {
		privileges = ", 'MAINTAIN'"
	}
	return fmt.Sprintf(seen, become, privileges, more)
}
