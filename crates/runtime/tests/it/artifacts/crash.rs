//! Publishers that die at each step, and many at once.

use super::site::{Site, count, hello, write};
use async_trait::async_trait;
use crosspoint_core::{Code, ContentDigest, Release, Result, Timestamp};
use crosspoint_runtime::artifacts::{ArtifactStore, FolderArtifacts, Over};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Tells a child what to do: where, how many steps it has, and a word that makes its content its own.
const PLAN: &str = "CROSSPOINT_TEST_PUBLISHER";

/// Kills the process before or after one of the calls of the store.
#[derive(Debug)]
struct Deadly {
    store: FolderArtifacts,
    steps: AtomicUsize,
}

impl Deadly {
    fn step(&self) {
        if self.steps.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}

#[async_trait]
impl ArtifactStore for Deadly {
    async fn put(&self, folder: &Path) -> Result<ContentDigest> {
        self.step();
        let answer = self.store.put(folder).await;
        self.step();
        answer
    }
    async fn get(&self, digest: &ContentDigest) -> Result<PathBuf> {
        self.store.get(digest).await
    }
    async fn list(&self) -> Result<Vec<Release>> {
        self.step();
        self.store.list().await
    }
    async fn tag(&self, release: Release, over: Over) -> Result<Release> {
        self.step();
        let answer = self.store.tag(release, over).await;
        self.step();
        answer
    }
    async fn layer(&self, made_of: &ContentDigest, content: Option<&ContentDigest>) -> Result<Option<ContentDigest>> {
        self.store.layer(made_of, content).await
    }
    async fn collect(&self, releases: &[Release], before: Timestamp) -> Result<Vec<ContentDigest>> {
        self.store.collect(releases, before).await
    }
}

/// What a publisher does in a process of its own. Nothing, unless it was told to.
#[tokio::test]
async fn a_child_that_publishes() {
    let Ok(plan) = std::env::var(PLAN) else { return };
    let parts: Vec<&str> = plan.split('|').collect();
    let [root, steps, word] = parts.as_slice() else {
        panic!("{plan}")
    };
    let store = FolderArtifacts::open(root).unwrap();
    let steps = AtomicUsize::new(steps.parse().unwrap());
    let site = Site::stored(std::sync::Arc::new(Deadly { store, steps }), Path::new(root));
    let source = hello("1.0.0");
    write(source.path(), "word.txt", word.as_bytes());
    match site.publish(source.path()).await {
        Ok(published) => println!("\nPUBLISHED {}", published.digest),
        Err(error) => println!("\nREFUSED {}", error.code()),
    }
}

fn child(root: &Path, steps: usize, word: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["artifacts::crash::a_child_that_publishes", "--exact", "--nocapture"])
        .env(PLAN, format!("{}|{steps}|{word}", root.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn said(child: std::process::Child) -> Option<String> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("PUBLISHED") || line.starts_with("REFUSED"));
    line.map(str::to_owned)
}

#[tokio::test]
async fn whoever_dies_while_publishing_has_published_nothing_or_all_of_it() {
    let mut survived = false;
    for steps in 1..20 {
        let root = tempfile::tempdir().unwrap();
        let said = said(child(root.path(), steps, "a"));
        let site = Site::over(root.path());
        let looked = site.artifacts.refresh().await.unwrap();
        assert!(looked.failed.is_empty(), "after {steps} steps: {looked:?}");
        let offered = site.offered("hello");
        assert_eq!(offered.is_some(), site.releases().await.len() == 1);
        if offered.is_some() {
            let answer = super::live::run(&site, "hello", "1.0.0", "greet").await;
            assert_eq!(answer, "1.0.0", "what is offered after {steps} steps runs");
        }
        // Whoever tries again gets through, whatever lies about.
        let source = hello("1.0.0");
        write(source.path(), "word.txt", b"a");
        site.publish(source.path()).await.unwrap();
        assert_eq!(site.offered("hello").unwrap(), "1.0.0");
        assert_eq!(count(root.path(), "content"), 1);
        if said.is_some() {
            assert!(steps > 4, "a publisher has more than {steps} steps");
            survived = true;
            break;
        }
    }
    assert!(survived, "the last one was given steps enough");
}

#[tokio::test]
async fn of_many_that_publish_one_version_at_once_one_wins_and_the_others_are_told() {
    let root = tempfile::tempdir().unwrap();
    let words = ["a", "b", "a", "b", "c", "a"];
    let children: Vec<_> = words.iter().map(|word| child(root.path(), 1000, word)).collect();
    let said: Vec<String> = children.into_iter().filter_map(said).collect();
    assert_eq!(said.len(), words.len(), "{said:?}");
    let site = Site::over(root.path());
    let [(_, digest)] = site.releases().await.try_into().unwrap();
    let won = format!("PUBLISHED {digest}");
    let refused = format!("REFUSED {}", Code::Conflict);
    assert!(said.contains(&won), "{said:?}");
    assert!(said.iter().all(|line| *line == won || *line == refused), "{said:?}");
    assert!(said.contains(&refused), "three contents cannot all have won: {said:?}");
    assert_eq!(count(root.path(), "staging"), 0);
}
