// What is around every page: the way to the others, who is signed in, and whether the server answers.

import { Component, type ReactNode, Suspense, useEffect, useLayoutEffect, useRef, useState } from "react";
import { Link, Redirect, Route, Switch, useLocation } from "wouter";
import { useSession, useSignOut } from "../api/session";
import { type Translate, useText } from "../i18n";
import { Button, ButtonLink, Empty, ErrorNote, Icon, IconButton, Page, Waiting } from "../ui";
import { useCodeAwaited } from "./code";
import { ConnectionNote } from "./connection";
import { PAGES } from "./pages";
import { Preferences } from "./preferences";
import styles from "./shell.module.css";

export function Shell() {
  const t = useText();
  const [where] = useLocation();
  const [open, setOpen] = useState(false);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page closes the menu
  useEffect(() => setOpen(false), [where]);
  useTopOfPage(where);
  return (
    <div className={styles.frame}>
      <a className={styles.skip} href="#content">
        {t("common.skip")}
      </a>
      <header className={styles.top}>
        <IconButton
          icon="menu"
          label={t("common.menu")}
          aria-expanded={open}
          aria-controls="menu"
          onClick={() => setOpen(!open)}
        />
        <Brand />
      </header>
      <aside
        className={styles.side}
        data-open={open}
        id="menu"
        onKeyDown={(event) => {
          if (event.key === "Escape") setOpen(false);
        }}
      >
        <Brand />
        <Navigation where={where} />
        <Account />
      </aside>
      <main className={styles.main} id="content" tabIndex={-1}>
        <ConnectionNote />
        <Mishap key={where} t={t}>
          <Suspense fallback={<Coming />}>
            <Pages />
          </Suspense>
        </Mishap>
      </main>
    </div>
  );
}

/** Until the page's code is there. */
function Coming() {
  const t = useText();
  return <div className="page">{useCodeAwaited() ? <Waiting text={t("common.reconnecting")} /> : <Waiting />}</div>;
}

/** A page begins at its top, but for one that the browser goes back to. */
function useTopOfPage(where: string): void {
  const isBack = useRef(true);
  useEffect(() => {
    const back = () => {
      isBack.current = true;
    };
    window.addEventListener("popstate", back);
    return () => window.removeEventListener("popstate", back);
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: for each new page
  useLayoutEffect(() => {
    if (!isBack.current) window.scrollTo(0, 0);
    isBack.current = false;
  }, [where]);
}

function Brand() {
  return (
    <Link href="/" className={styles.brand}>
      <img src="/favicon.svg" alt="" width={24} height={24} />
      stillroom
    </Link>
  );
}

function Navigation({ where }: { where: string }) {
  const t = useText();
  return (
    <nav className={styles.pages} aria-label={t("common.pages")}>
      {PAGES.map((page) => {
        const here = page.path === "/" ? where === "/" : where === page.path || where.startsWith(`${page.path}/`);
        return (
          <Link key={page.path} href={page.path} className={styles.page} aria-current={here ? "page" : undefined}>
            <Icon name={page.icon} />
            {t(page.name)}
          </Link>
        );
      })}
    </nav>
  );
}

function Account() {
  const t = useText();
  const session = useSession();
  const signingOut = useSignOut();
  return (
    <div className={styles.account}>
      <Preferences />
      <span className={`small quiet ${styles.signedIn}`}>
        {t("common.signed_in_as", { name: session.data?.key_name ?? "" })}
      </span>
      <Button kind="ghost" icon="out" busy={signingOut.isPending} onClick={() => signingOut.mutate()}>
        {t("common.sign_out")}
      </Button>
      {signingOut.error && <ErrorNote error={signingOut.error} />}
    </div>
  );
}

function Pages() {
  const t = useText();
  return (
    <Switch>
      {PAGES.flatMap((page) =>
        [page.path, ...(page.below ?? [])].map((path) => <Route key={path} path={path} component={page.view} />),
      )}
      <Route path="/overview">
        <Redirect to="/" replace />
      </Route>
      <Route>
        <Page title={t("common.no_page")}>
          <Empty title={t("common.no_page")}>
            <p>{t("common.no_page_text")}</p>
            <div>
              <ButtonLink to="/" icon="overview">
                {t("overview.title")}
              </ButtonLink>
            </div>
          </Empty>
        </Page>
      </Route>
    </Switch>
  );
}

/** A page that breaks says so, and the others go on. */
class Mishap extends Component<{ t: Translate; children: ReactNode }, { error: unknown }> {
  override state = { error: null as unknown };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error == null) return this.props.children;
    return (
      <Page title={this.props.t("common.broke")}>
        <p>{this.props.t("common.broke_text")}</p>
        <ErrorNote error={this.state.error} onRetry={() => window.location.reload()} />
      </Page>
    );
  }
}
